// Runs a health check of Argo CD on an object: the script is the first argument, the object comes as JSON on standard
// input, and the result is printed as JSON. It is the interpreter that Argo CD itself embeds, with the libraries that it
// opens (util/lua/lua.go): base, table, package and a safe part of os are there, io is not.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"context"

	lua "github.com/yuin/gopher-lua"
)

// A check that takes longer is cut off, as Argo CD does.
const deadline = time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "argo-health:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: argo-health SCRIPT < OBJECT")
	}
	script, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	var object any
	if err := json.NewDecoder(os.Stdin).Decode(&object); err != nil {
		return fmt.Errorf("the object is not JSON: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return err
		}
	}
	state.SetContext(ctx)
	state.SetGlobal("obj", toLua(state, object))
	if err := state.DoString(string(script)); err != nil {
		return err
	}
	result, isTable := state.Get(-1).(*lua.LTable)
	if !isTable {
		return fmt.Errorf("the check returned %s, not a table", state.Get(-1).Type())
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]string{
		"status": lua.LVAsString(result.RawGetString("status")), "message": lua.LVAsString(result.RawGetString("message")),
	})
}

// toLua turns decoded JSON into a value of the interpreter. Null is nil: a field that is absent.
func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case float64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		table := state.CreateTable(len(value), 0)
		for _, item := range value {
			table.Append(toLua(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(value))
		for name, item := range value {
			table.RawSetString(name, toLua(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
