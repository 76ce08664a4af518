"""Widgets: look into a clip, a schedule, a network, while it works. `base.LabWidget` tells how they are made."""
