"""One process's gradients of a batch: python gradient_run.py OUT; alone, or as one of several processes."""

import sys

import torch
from accelerate import Accelerator

from lpsnet.architecture import Architecture
from lpsnet.models.network import create_model
from lpsnet.training.loop import global_mean, set_training_mode
from lpsnet.training.losses import Criterion


def save_gradients(path: str) -> None:
    """The gradients of all parameters, whatever the number of processes; the main one writes them."""
    accelerator = Accelerator(cpu=True)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 48, 64, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (4, 48, 64), generator=generator)
    labels[0, :40] = 255  # the processes have very different numbers of labelled pixels
    labels[2] = 255
    torch.manual_seed(0)
    network = create_model(Architecture((1,) * 5, (4, 4, 8, 8, 8), ("1", "1/2")), num_classes=3).double()
    model = network if accelerator.num_processes == 1 else accelerator.prepare_model(network)
    set_training_mode(model, freeze_batch_norm=True)
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    total, weight = Criterion()(model(images[share]), labels[share])
    global_mean(total, weight, accelerator).backward()
    if accelerator.is_main_process:
        torch.save({name: p.grad for name, p in network.named_parameters()}, path)
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:
        accelerator.end_training()


if __name__ == "__main__":
    torch.set_num_threads(1)
    save_gradients(sys.argv[1])
