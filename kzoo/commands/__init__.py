"""The commands: `forms.py` holds their options, and each module does the work of the command of its name."""
