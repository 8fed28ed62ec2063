/* libFuzzer's entry points over an embedded Python: each input goes to a function of fuzz.targets, named by FUZZ_TARGET. */
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

static PyObject *target;

static void fail_if(int failed) {
    if (failed) {
        PyErr_Print();
        abort();
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    const char *name = getenv("FUZZ_TARGET");
    PyObject *module;
    (void)argc, (void)argv;
    Py_InitializeEx(0);
    module = PyImport_ImportModule("fuzz.targets");
    fail_if(module == NULL);
    target = PyObject_GetAttrString(module, name == NULL ? "session" : name);
    fail_if(target == NULL);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    PyObject *result;
    fail_if(bytes == NULL);
    result = PyObject_CallOneArg(target, bytes);
    fail_if(result == NULL);
    Py_DECREF(result);
    Py_DECREF(bytes);
    return 0;
}
