package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"slices"
	"testing"
)

// The picture in docs is up to date.
func TestPictureIsUpToDate(t *testing.T) {
	const top = "../../"
	want, err := drawFiles(top)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(top + picture)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s does not match %s and %s: run make plot, or go run ./bench/plot", picture, millionCSV, streamsCSV)
	}
	for d := xml.NewDecoder(bytes.NewReader(got)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// All values are between the ends of the axis.
func TestTicksAreRoundAndEnclose(t *testing.T) {
	for _, test := range []struct {
		log    bool
		values []float64
		want   []float64
	}{
		{false, []float64{3, 48}, []float64{0, 10, 20, 30, 40, 50}},
		{false, []float64{0.6, 3.2}, []float64{0, 1, 2, 3, 4}},
		{false, []float64{90, 101}, []float64{0, 50, 100, 150}},
		{true, []float64{0.5, 72}, []float64{0.1, 1, 10, 100}},
		{true, []float64{1, 10}, []float64{1, 10}},
		{true, []float64{1, 1}, []float64{1, 10}},
	} {
		s := series{}
		for _, v := range test.values {
			s.rows = append(s.rows, map[string]float64{"x": v})
		}
		got := panel{column: "x", scale: 1, log: test.log}.ticks([]series{s})
		if !slices.Equal(got, test.want) {
			t.Errorf("%v: %v, want %v", test.values, got, test.want)
		}
	}
}
