// Square with four circular holes and a disc in the middle in which a source can act.
//
//   domain    [-4, 4]^2 without the four discs of radius 0.8 around (+-2.4, +-2.4)
//   surfaces  core    r < 1.6
//             square  the rest
//   curves    left, right, bottom, top, holes
//
// The circle around the core is meshed along but carries no physical name: it is no boundary.
// Regenerate with:  gmsh -2 meshes/four_discs.geo -o meshes/four_discs.msh

half = 4.0;
centre = 2.4;
hole_radius = 0.8;
core_radius = 1.6;

size_hole = 0.13;
size_core = 0.2;
size_far = 0.3;

Point(11) = {-half, -half, 0, size_far};
Point(12) = { half, -half, 0, size_far};
Point(13) = { half,  half, 0, size_far};
Point(14) = {-half,  half, 0, size_far};
Line(11) = {11, 12};
Line(12) = {12, 13};
Line(13) = {13, 14};
Line(14) = {14, 11};
Curve Loop(1) = {11, 12, 13, 14};

Macro Ring
  Point(base) = {x, y, 0, size};
  Point(base + 1) = {x + radius, y, 0, size};
  Point(base + 2) = {x, y + radius, 0, size};
  Point(base + 3) = {x - radius, y, 0, size};
  Point(base + 4) = {x, y - radius, 0, size};
  Circle(base + 1) = {base + 1, base, base + 2};
  Circle(base + 2) = {base + 2, base, base + 3};
  Circle(base + 3) = {base + 3, base, base + 4};
  Circle(base + 4) = {base + 4, base, base + 1};
  Curve Loop(base) = {base + 1, base + 2, base + 3, base + 4};
Return

radius = hole_radius; size = size_hole;
base = 20; x = -centre; y = -centre; Call Ring;
base = 30; x =  centre; y = -centre; Call Ring;
base = 40; x =  centre; y =  centre; Call Ring;
base = 50; x = -centre; y =  centre; Call Ring;
radius = core_radius; size = size_core;
base = 60; x = 0; y = 0; Call Ring;

Plane Surface(1) = {1, 20, 30, 40, 50, 60};
Plane Surface(2) = {60};

Physical Curve("bottom", 1) = {11};
Physical Curve("right", 2) = {12};
Physical Curve("top", 3) = {13};
Physical Curve("left", 4) = {14};
Physical Curve("holes", 5) = {21:24, 31:34, 41:44, 51:54};
Physical Surface("square", 6) = {1};
Physical Surface("core", 7) = {2};

Mesh.Algorithm = 6;         // frontal Delaunay: the most regular triangles
Mesh.ElementOrder = 1;
Mesh.MshFileVersion = 4.1;
Mesh.Binary = 0;            // text, so that a change of the mesh can be read in a diff
Mesh.SaveAll = 0;           // only elements with a physical name
