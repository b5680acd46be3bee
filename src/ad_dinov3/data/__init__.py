"""Images, masks and data sets: files in, samples and uint8 arrays out."""
