"""The course: exercises and their checks, questions, equations, sessions."""
