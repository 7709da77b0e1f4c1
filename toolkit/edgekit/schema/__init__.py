"""Plain frozen values that the recipe, the bundle and the device share, and the strict decoder that reads them."""
