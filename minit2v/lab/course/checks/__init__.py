"""The checks of each notebook's exercises: nb00.py, nb01.py, …; see `minit2v.lab.course.exercises`."""
