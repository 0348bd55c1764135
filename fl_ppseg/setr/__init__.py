"""SETR (Zheng et al., CVPR 2021): a plain ViT of timm's as encoder, a small convolutional decoder.

The package re-exports nothing, so that `fl_ppseg.setr.names` can be read without loading torch.
"""
