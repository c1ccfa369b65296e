// Command plot draws docs/million.svg: the cost of streams and deliveries by the number of streams, from bench/million.csv
// (peers in memory) and bench/streams.csv (sockets).
//
//	go run ./bench/plot       in the top directory of the module; make plot
package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strconv"
)

// Files, relative to the top directory of the module.
const (
	millionCSV = "bench/million.csv"
	streamsCSV = "bench/streams.csv"
	picture    = "docs/million.svg"
)

func main() {
	log.SetFlags(0)
	svg, err := drawFiles("")
	if err == nil {
		err = os.WriteFile(picture, svg, 0o644)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// drawFiles draws the data of the files below top.
func drawFiles(top string) ([]byte, error) {
	all := []series{{name: "in memory", file: millionCSV, class: "memory"}, {name: "sockets", file: streamsCSV, class: "sockets"}}
	for i := range all {
		file, err := os.Open(top + all[i].file)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		if all[i].rows, err = readRows(file); err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name(), err)
		}
	}
	return draw(all)
}

// series are the rows of one file.
type series struct {
	name, file, class string
	rows              []map[string]float64
}

// readRows reads a file with a header line, and sorts its rows by streams.
func readRows(r io.Reader) (rows []map[string]float64, err error) {
	lines, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(lines) < 2 {
		return nil, fmt.Errorf("rows are missing")
	}
	for _, line := range lines[1:] {
		row := make(map[string]float64)
		for i, cell := range line {
			if row[lines[0][i]], err = strconv.ParseFloat(cell, 64); err != nil {
				return nil, err
			}
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b map[string]float64) int { return int(a["streams"] - b["streams"]) })
	return rows, nil
}
