// Package refusal tells a fault that the person at the keyboard can put right from one of the program's own.
package refusal

import (
	"errors"
	"fmt"
)

// Refusal is one sentence that says what is wrong and what to do about it.
type Refusal struct{ sentence string }

func (r *Refusal) Error() string { return r.sentence }

// New makes a refusal from a format and its arguments.
func New(format string, arguments ...any) error {
	return &Refusal{sentence: fmt.Sprintf(format, arguments...)}
}

// ExitCode is 2 for a refusal, 1 for any other error and 0 for none.
func ExitCode(err error) int {
	var refusal *Refusal
	switch {
	case err == nil:
		return 0
	case errors.As(err, &refusal):
		return 2
	default:
		return 1
	}
}
