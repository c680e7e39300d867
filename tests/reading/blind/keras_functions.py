# %% small CNN on MNIST
import keras
from keras import layers

EPOCHS = 3
BATCH = 128


def build_model(filters=32, kernel_size=3, dense_units=128, drop=0.25, n_classes=10):
    model = keras.Sequential(
        [
            keras.Input(shape=(28, 28, 1)),
            layers.Conv2D(filters, kernel_size, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(2 * filters, kernel_size, activation="relu"),
            layers.Flatten(),
            layers.Dropout(drop),
            layers.Dense(dense_units, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(n_classes, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.Adam(learning_rate=0.001, beta_1=0.9, clipnorm=1.0)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


# %%
(x, y), (xt, yt) = keras.datasets.mnist.load_data()
x, xt = x[..., None] / 255.0, xt[..., None] / 255.0
model = build_model()
history = model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, validation_split=0.1, verbose=2)
loss, acc = model.evaluate(xt, yt, verbose=0)
print(f"Test accuracy: {acc:.4f}")
