/* libcuda.so.1: what is asked of the driver by its own name. Modules load, kernels launch, nothing is computed. */
#define NOTHING(name) int name(void) { return 0; }
NOTHING(cuCtxSetCurrent)
NOTHING(cuDeviceGet)
NOTHING(cuDeviceGetAttribute)
NOTHING(cuDevicePrimaryCtxRetain)
NOTHING(cuFuncGetAttribute)
NOTHING(cuFuncSetAttribute)
NOTHING(cuFuncSetCacheConfig)
NOTHING(cuGetErrorName)
NOTHING(cuGetErrorString)
NOTHING(cuInit)
NOTHING(cuLaunchCooperativeKernel)
NOTHING(cuLaunchKernel)
NOTHING(cuLinkAddData_v2)
NOTHING(cuLinkComplete)
NOTHING(cuLinkCreate_v2)
NOTHING(cuModuleGetFunction)
NOTHING(cuModuleLoad)
NOTHING(cuModuleLoadData)
NOTHING(cuModuleLoadDataEx)
NOTHING(cuModuleUnload)
NOTHING(cuOccupancyMaxActiveBlocksPerMultiprocessor)
NOTHING(cuPointerGetAttribute)
NOTHING(cuTensorMapEncodeTiled)

int cuCtxGetCurrent(void **out) { *out = (void *)1; return 0; }
int cuDriverGetVersion(int *out) { *out = 13000; return 0; }

int fake_primary_state(int, unsigned *, int *) __attribute__((weak));
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    if (fake_primary_state) return fake_primary_state(device, flags, active);
    *flags = *active = 0;
    return 0;
}
