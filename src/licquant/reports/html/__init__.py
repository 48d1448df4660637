"""An evaluation as one folder that a browser opens from disk: no network, no server.

folder.py    the folder: whether it may be written, and writing it aside
record.py    what the report tells beside the evaluation's JSON: layers, parts of coded files, sensitivity, commands
samples.py   crops of a few images, and the parts of coded files, gathered while codecs are measured
content.py   the page, a pure function of the record; charts.py, tables.py, markup.py: what it is made of
page/        the template, its style and its script
"""
