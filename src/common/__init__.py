"""What every FlashSlides service shares; knows nothing of HTTP, terminals or Stripe's wire format."""
