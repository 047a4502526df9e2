"""What `tools/evaluate_model.py` and `tools/scaling.py` compute: measures of texts, skills, grades, a scaling law."""
