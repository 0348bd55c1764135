"""Procedural street scenes with exact label maps, in cities that each have their own style.

A scene is planned in metres (`plan`), made of flat patches (`mesh` and a module a noun), seen
through a pinhole camera (`camera`), painted far to near (`canvas`) and finished with texture, haze
and sensor noise (`finish`). Only numpy and Pillow are imported: worker processes start at once.
"""
