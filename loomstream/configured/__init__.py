"""From settings to a model: who answers (`choice`), with what (`plan`), through which middleware (`stack`).

Contract: `loomstream.config` yields values, `loomstream.model` makes the model; what lies between is here. Nothing here
sends anything.
"""
