"""Cityscapes labelIds, as in cityscapesScripts' `helpers/labels.py`."""

from enum import IntEnum


class Label(IntEnum):
    """labelId of a pixel; those below 7 are void and are not scored."""

    UNLABELED = 0
    EGO_VEHICLE = 1
    STATIC = 4
    DYNAMIC = 5
    GROUND = 6
    ROAD = 7
    SIDEWALK = 8
    BUILDING = 11
    WALL = 12
    FENCE = 13
    POLE = 17
    TRAFFIC_LIGHT = 19
    TRAFFIC_SIGN = 20
    VEGETATION = 21
    TERRAIN = 22
    SKY = 23
    PERSON = 24
    RIDER = 25
    CAR = 26
    TRUCK = 27
    BUS = 28
    TRAIN = 31
    MOTORCYCLE = 32
    BICYCLE = 33
