"""The checks of each notebook's exercises, with their solutions: nb00.py, nb01.py, …; see `minit2v.lab.course.exercises`.

In the zip for a room (`make student-zip`) these files are packed into one beside this, PACKED, so that no folder on a
student's machine shows a solution. Python imports from that file as from a folder (PEP 273), so everything works alike.
It is no secret: whoever knows Python can unpack it.
"""

from pathlib import Path

PACKED = "checks.bin"  # a zip archive; with another ending no program opens it by a click

__path__.append(str(Path(__file__).with_name(PACKED)))
