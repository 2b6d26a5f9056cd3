"""What every FlashSlides service shares; knows nothing of HTTP or terminals."""
