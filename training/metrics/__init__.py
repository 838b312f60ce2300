"""What a trained net says of images."""
