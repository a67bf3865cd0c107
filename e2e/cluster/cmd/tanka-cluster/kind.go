package main

var kindCommands = map[string]command{}
var existingCommands = map[string]command{}
