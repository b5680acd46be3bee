"""What an image is compared with: normal images, its folder, its stream; and what may be promised. numpy alone."""
