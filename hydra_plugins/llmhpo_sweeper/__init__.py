"""A sweeper for Hydra: `python app.py -m hydra/sweeper=llmhpo hydra.sweeper.direction=minimize 'lr=tag(log,interval(1e-5,1))'`."""
