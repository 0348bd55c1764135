"""What coordinator and nodes share when they run on machines of their own.

Certificates, supervised processes, the clients of a run, templates for systemd and compose. Nothing
here knows a key of an image, an image or a label map.
"""
