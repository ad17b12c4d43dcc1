# %% [markdown]
# # 4. Plain networks and their degradation
#
# A plain network is one function behind the other:
#
# $$ y = f_L(\dots f_2(f_1(x))) $$
#
# A deeper one could do whatever a shallower one does, if its further layers were identities. So it should not have a
# larger *training* error. He et al. ([arXiv:1512.03385](https://arxiv.org/abs/1512.03385), section 1 and Figure 1) saw
# that it has: with more layers, plain networks with batch normalisation train worse. This is not overfitting, for it
# is the training error that grows.
#
# Here are their plain networks of 20 and 56 layers for CIFAR-10 (section 4.2), with half as many channels, on 2,000
# pictures of half the size, for 15 epochs. That is a small budget: it shows how training starts, not where it ends.
# After it the loss of 56 layers is **more than 1.2** times that of 20 layers.

# %%
import lesson

losses = {name: lesson.training_losses(name) for name in ("cifar_plain20", "cifar_plain56")}

figure, axes = lesson.panels(1, 1, 3)
for (name, loss), colour, style in zip(losses.items(), (lesson.BLUE, lesson.ORANGE), ("o-", "s--"), strict=True):
    axes[0, 0].plot(
        range(1, len(loss) + 1), loss, style, markersize=4, color=colour, label=f"{name[11:]} layers, plain"
    )
axes[0, 0].set(xlabel="epoch", ylabel="training loss", title="More layers, a larger training loss")
axes[0, 0].legend()
lesson.save(figure, "04_plain")

# %%
worse = losses["cifar_plain56"][-1] / losses["cifar_plain20"][-1]

assert worse > 1.2
