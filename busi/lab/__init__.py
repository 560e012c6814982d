"""Tools to play with: trained networks to ask about any image, small networks trained live, widgets."""
