"""What look_inside.py is made of: one file for each thing that it shows."""
