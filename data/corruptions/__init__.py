"""The CIFAR-10-C corruptions (Hendrycks and Dietterich, ICLR 2019) as a table of small functions.

Every function takes uint8 images (N, H, W, 3), the parameters of one severity, and one random
stream for each image, and returns the corrupted images in 0 .. 255; what is not uint8 yet is
truncated, as the official generator does.
"""
