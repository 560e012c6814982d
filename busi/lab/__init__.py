"""What the lab plays with: trained networks that can be asked about any image, small ones trained live, widgets."""
