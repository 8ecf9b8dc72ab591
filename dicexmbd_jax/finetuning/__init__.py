"""From a few labelled images to a model for their study.

samples   an image and what people say of it, checked
reading   samples from folders
split     which part of them trains, which judges
patches   training records of them, beside simulated tissue
judge     scores of a model on the part that judges
fit       the segmenter's settings for a model
training  the trainer's loop, ended by the clock
advice    what the numbers mean, in words
study     all of these in turn
"""
