"""Procedural street scenes with exact label maps, in cities that each have their own style.

A scene is planned in metres (`plan`), made of flat patches (`mesh`, one module per kind), seen
through a pinhole camera (`camera`), painted far to near (`canvas`) and finished with texture, haze
and sensor noise (`finish`). Only numpy and Pillow are imported, so worker processes start fast.
"""
