"""How fast a model runs, all its forms by turns in one run, as ratios: `kzoo bench`."""
