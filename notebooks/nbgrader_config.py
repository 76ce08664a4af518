"""Settings of nbgrader for the course: `make nbgrader` copies this file beside the assignments, for you to change."""

import os

from nbgrader.converters import GenerateAssignment
from nbgrader.preprocessors import ClearSolutions

os.environ.setdefault("MINIT2V_FAST", "1")  # notebooks are run as the tests run them: seconds to a minute or two each
os.environ.setdefault("HF_HUB_OFFLINE", "1")


class ClearCourseSolutions(ClearSolutions):
    """nbgrader's own; of a bug hunt, students get the code with the bug, which is in the cell's metadata."""

    def preprocess_cell(self, cell, resources, cell_index):
        if (stub := cell.metadata.pop("stub", None)) is None:
            return super().preprocess_cell(cell, resources, cell_index)
        cell.source = stub
        return cell, resources


c = get_config()  # noqa: F821 - nbgrader defines it
c.CourseDirectory.course_id = "minit2v"
c.ClearSolutions.code_stub = {"python": 'raise NotImplementedError("your code here")'}
c.GenerateAssignment.preprocessors = [
    ClearCourseSolutions if one is ClearSolutions else one for one in GenerateAssignment.preprocessors.default()
]
c.Execute.timeout = 300  # seconds of a cell
