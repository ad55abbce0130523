"""The names of the files and folders in a run folder."""

from __future__ import annotations

# The file by which the folder of a study is recognised; its run folders are in it.
STUDY = "study.yaml"
PROBLEM, SUMMARY, HISTORY, LOG = "problem.yaml", "summary.json", "history.csv", "run.log"
# The newest checkpoint, and the one before it, which takes its place where the newest one is damaged.
CHECKPOINT, EARLIER_CHECKPOINT = "checkpoint.pt", "checkpoint-before.pt"
# The files that the curvature role of a run of two roles adds to a checkpoint.
CURVATURE_CHECKPOINTS = "checkpoint-curvature-*.pt"
# The state of a population search, from which the run starts.
POPULATION = "population.pt"
# The mesh of a problem that has its mesh in memory.
MESH = "mesh.npz"
# The solution that `Solution.save` writes in place of a checkpoint.
SOLUTION = "solution.pt"
# The series of the outer iterates: its folder and the stem of its files.
FIELDS, STEM = "fields", "state"
# The last iterate; of an evolution, its series in time, whose name is that of its folder and of its stem.
FINAL, EVOLUTION = "final.vtu", "evolution"
# Sensors as points, and the parts of the boundary that controls act on, of an evolution with a series in time.
SENSORS, BOUNDARY, BOUNDARY_EVOLUTION = "sensors.vtu", "boundary_control.vtu", "boundary_control"
# A state of ParaView, and the surface of a density that `nhgd-pde export` writes. A file called paraview.py would hide
# the package of that name.
STATE_SCRIPT, SURFACE = "paraview_state.py", "density.stl"
SCENARIOS = "scenarios.csv"
# The controls that vary in time.
CONTROLS = "controls_over_time.csv"
# The picture for a quick look, and the page about the run.
FIGURE, REPORT = "figure.png", "report.html"
# Of adaptive meshes: the folder with a run for each of them, that mesh in its run, and the table of all of them.
LEVELS, LEVEL_MESH, LEVEL_TABLE = "levels", "mesh.vtu", "levels.csv"
# The posterior of an inverse problem: its fields and its numbers.
POSTERIOR = "posterior"
POSTERIOR_FIELDS, POSTERIOR_NUMBERS = f"{POSTERIOR}/posterior.vtu", f"{POSTERIOR}/posterior.json"
# A choice of sensors: its numbers, the chosen sensors, the standard deviations, and all candidates as points.
PLACEMENT, PLACEMENT_SENSORS, PLACEMENT_FIELDS = "placement.json", "sensors.csv", "placement.vtu"
PLACEMENT_CANDIDATES = "candidates.vtu"
# The answer of a task.
ARRAYS, IMAGES = "result.npz", "images.png"
