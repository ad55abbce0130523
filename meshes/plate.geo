// Plate with a circular hole and a ring-shaped pad around it.
//
//   domain    [-1, 1] x [-0.5, 0.5] without the disc of radius 0.2 at the origin
//   surfaces  pad    0.2 < r < 0.35
//             plate  the rest
//   curves    left, right, bottom, top, hole
//
// The circle between pad and plate is meshed along but carries no physical name: it is no boundary.
// Regenerate with:  gmsh -2 meshes/plate.geo -o meshes/plate.msh

half_width = 1.0;
half_height = 0.5;
hole_radius = 0.2;
pad_radius = 0.35;

size_hole = 0.022;
size_pad = 0.034;
size_far = 0.06;

Point(1) = {0, 0, 0};

Point(11) = {-half_width, -half_height, 0, size_far};
Point(12) = { half_width, -half_height, 0, size_far};
Point(13) = { half_width,  half_height, 0, size_far};
Point(14) = {-half_width,  half_height, 0, size_far};

Point(21) = { hole_radius, 0, 0, size_hole};
Point(22) = {0,  hole_radius, 0, size_hole};
Point(23) = {-hole_radius, 0, 0, size_hole};
Point(24) = {0, -hole_radius, 0, size_hole};

Point(31) = { pad_radius, 0, 0, size_pad};
Point(32) = {0,  pad_radius, 0, size_pad};
Point(33) = {-pad_radius, 0, 0, size_pad};
Point(34) = {0, -pad_radius, 0, size_pad};

Line(11) = {11, 12};
Line(12) = {12, 13};
Line(13) = {13, 14};
Line(14) = {14, 11};

Circle(21) = {21, 1, 22};
Circle(22) = {22, 1, 23};
Circle(23) = {23, 1, 24};
Circle(24) = {24, 1, 21};

Circle(31) = {31, 1, 32};
Circle(32) = {32, 1, 33};
Circle(33) = {33, 1, 34};
Circle(34) = {34, 1, 31};

Curve Loop(1) = {11, 12, 13, 14};
Curve Loop(2) = {21, 22, 23, 24};
Curve Loop(3) = {31, 32, 33, 34};

Plane Surface(1) = {1, 3};
Plane Surface(2) = {3, 2};

Physical Curve("bottom", 1) = {11};
Physical Curve("right", 2) = {12};
Physical Curve("top", 3) = {13};
Physical Curve("left", 4) = {14};
Physical Curve("hole", 5) = {21, 22, 23, 24};
Physical Surface("plate", 6) = {1};
Physical Surface("pad", 7) = {2};

Mesh.Algorithm = 6;         // frontal Delaunay: the most regular triangles
Mesh.ElementOrder = 1;
Mesh.MshFileVersion = 4.1;
Mesh.Binary = 0;            // text, so that a change of the mesh can be read in a diff
Mesh.SaveAll = 0;           // only elements with a physical name
