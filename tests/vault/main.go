// A Vault server for the tests: the real one, built from its Go module (see README.md).
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
