#ifndef FAKE_NVML_PHYSICS_H
#define FAKE_NVML_PHYSICS_H
#include "state.h"

double true_energy(const gpu_state *gpu, double t);
double counter_joule(const gpu_state *gpu, double t, int index);
double instant_watt(const gpu_state *gpu, double t, int index);
double average_watt(const gpu_state *gpu, double t);
#endif
