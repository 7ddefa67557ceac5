# The study that all rules share: read, checked and locked once, before any job starts.
import os
import sys
from pathlib import Path

# A checkout works without being installed, and jobs find the `zpdbench` of this interpreter.
sys.path.insert(0, os.path.join(workflow.basedir, "src"))
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])

from zpdbench import grid, resources
from zpdbench.errors import UserError
from zpdbench.study import lock_study

try:
    study = lock_study(config, workflow.configfiles)
except UserError as error:
    print(f"configuration: {error}", file=sys.stderr)
    sys.exit(2)

paths = study.paths
images = study.images.model_dump()


wildcard_constraints:
    **grid.WILDCARDS,


onsuccess:
    if os.path.exists(paths.table("h3a")):
        shell(f"zpdbench show {paths.table('h3a')}")
