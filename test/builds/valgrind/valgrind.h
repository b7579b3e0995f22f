/* all of it is there */
#include "memcheck.h"
