"""The workbench: a folder of images in the browser, to look at, to decide on, and to teach from."""
