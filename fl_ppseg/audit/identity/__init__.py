"""An audit of identity: how many number plates and faces can be read from what survives a cipher.

    plates, faces   drawn plates of random characters, drawn faces of random people
    crops           either of them in front of procedural scenes, in a window of whole blocks
    effort          sizes of the trainings, and what a frame's size makes of a plate and a face
    procedure       attacker and targets, form by form; counts of what was read
    page            the findings as a table and a page

Attacks get the attacker's own crops with their truth, and of the targets the canonical form alone.
No key, no vault and no cipher is within reach of this room (a tested rule): every ciphertext of a
crop has the crop's canonical form.
"""
