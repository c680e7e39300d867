#!/usr/bin/env python
# coding: utf-8

# # Digits with a perceptron
#
# Style: a notebook, exported by `jupyter nbconvert --to script`.

# In[1]:


import json
import os

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

# In[2]:


data = load_digits()
X_train, X_val, y_train, y_val = train_test_split(data.data / 16, data.target, test_size=0.3, random_state=0)
X_train.shape


# In[3]:


# tried before: learning_rate = 0.1, batch_size = 8
learning_rate = 3e-3
batch_size = 64
n_epochs = 12


# In[4]:


model = MLPClassifier(
    hidden_layer_sizes=(64, 32),
    activation="relu",
    solver="adam",
    alpha=1e-4,
    beta_1=0.9,
    learning_rate_init=learning_rate,
    batch_size=batch_size,
    max_iter=n_epochs,
    early_stopping=False,
    random_state=0,
    verbose=False,
)


# In[5]:


import warnings

warnings.simplefilter("ignore")
model.fit(X_train, y_train)
score = model.score(X_val, y_val)
score


# In[6]:


result = json.dumps({"val_accuracy": score})
print(result) if "LLMHPO_RESULT" not in os.environ else open(os.environ["LLMHPO_RESULT"], "w").write(result)
