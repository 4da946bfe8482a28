#include <rekey/ctl/ctl.h>

int main(int argc, char **argv)
{
    return rk_ctl_main(argc, argv);
}
