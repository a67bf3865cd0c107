package main

import (
	"context"
	"fmt"

	"tanka.dev/e2e/cluster/internal/hygiene"
	"tanka.dev/e2e/cluster/internal/refusal"
)

func takeSnapshot(_ context.Context, e environment, arguments []string) error {
	if len(arguments) != 1 {
		return refusal.New("say into which file: snapshot FILE")
	}
	snapshot, err := hygiene.Take(e.cluster)
	if err != nil {
		return err
	}
	return snapshot.Save(arguments[0])
}

func checkClean(_ context.Context, e environment, arguments []string) error {
	var found []string
	var err error
	switch {
	case len(arguments) == 0:
		found, err = hygiene.Leftovers(e.cluster)
	case len(arguments) == 2 && arguments[0] == "--against":
		var before, after hygiene.Snapshot
		if before, err = hygiene.Load(arguments[1]); err == nil {
			after, err = hygiene.Take(e.cluster)
		}
		found = hygiene.Differences(before, after)
	default:
		return refusal.New("check-clean takes nothing, or --against FILE with a snapshot")
	}
	if err != nil {
		return err
	}
	for _, line := range found {
		fmt.Println(line)
	}
	if len(found) > 0 {
		return refusal.New("%d things are not as they should be; run \"down\", and look at those that stay", len(found))
	}
	return nil
}
