"""Drawings that explain one idea of one notebook each; what any notebook plots is in `lab.plots`."""
