"""The commands: `forms.py` holds their options, and each module does the work of the command of its name.

form: the dataclass of a command's options, with their help.
catalogue: `catalogue.json`: what `kzoo list` and completion tell of every model, so that nothing is built for it.
name: a model of the zoo, as `kzoo list` shows it; a model may also be a file.
`--labels`: a text file of class names, which users know as labels.txt; code calls them class names.
"""
