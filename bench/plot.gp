# SPDX-License-Identifier: GPL-2.0
#
# Draw the tables that scripts/bench leaves in the current directory.

set terminal svg noenhanced size 900,500 dynamic background rgb "white" font "sans,13"
set datafile separator tab
set datafile missing "-"
set datafile columnheaders
set key outside top center horizontal
set grid ytics
set style line 1 lc rgb "#888888" lw 2 pt 7
set style line 2 lc rgb "#222222" lw 2 pt 7
set style line 3 lc rgb "#d08020" lw 2 pt 5
set style line 4 lc rgb "#2060b0" lw 2 pt 9
set style line 5 lc rgb "#60a0e0" lw 2 pt 11
set linetype 1 lc rgb "#888888"

have(name) = int(system("test -f ".name." && echo 1 || echo 0"))
unit = "ns per 4 kB page"

if (have("move.tsv")) {
	set output "move.svg"
	set title "Moving memory: by its folios"
	set style data histogram
	set style histogram clustered gap 1
	set style fill solid 0.9
	set logscale y
	set yrange [1:*]
	set ylabel unit
	plot [] "< grep -v call move.tsv" \
		using "base:plain-pages":xtic(1) ls 1 title "mremap(), without the series", \
		"" using "plain-pages" ls 2 title "mremap()", \
		"" using "uffd-pages" ls 3 title "UFFDIO_MOVE", \
		"" using "relocate-pages" ls 4 title "relocated", \
		"" using "relocate-tables" ls 5 title "relocated, aligned"
	unset logscale
	set yrange [*:*]
}

if (have("noflag.tsv")) {
	set output "noflag.svg"
	set title "Without the flag: cost against a kernel without the series"
	set style data histogram
	set style fill solid 0.9
	set ylabel "ratio"
	set yrange [0:*]
	set xtics rotate by -40
	plot "< grep -v ^flag noflag.tsv" using "ratio":xtic(1) ls 4 notitle, \
		1 lc rgb "black" notitle
	set xtics norotate
	set yrange [*:*]
}

set style data linespoints
set ylabel unit
set logscale y

if (have("size.tsv")) {
	set output "size.svg"
	set title "Moving memory: by the number of pages"
	set xlabel "pages"
	set logscale x
	plot "size.tsv" using "pages":"base:plain-pages" ls 1 title "mremap(), without the series", \
		"" using "pages":"plain-pages" ls 2 title "mremap()", \
		"" using "pages":"uffd-pages" ls 3 title "UFFDIO_MOVE", \
		"" using "pages":"relocate-pages" ls 4 title "relocated", \
		"" using "pages":"relocate-tables" ls 5 title "relocated, aligned"
	unset logscale x
}

do for [name in "population swapped"] {
	if (have(name.".tsv")) {
		set output name.".svg"
		set title name eq "swapped" ? "Moving memory: by what is swapped out" : \
			"Moving memory: by what was ever written to"
		set xlabel "percent"
		plot name.".tsv" using "percent":"base:plain-pages" ls 1 title "mremap(), without the series", \
			"" using "percent":"plain-pages" ls 2 title "mremap()", \
			"" using "percent":"uffd-pages" ls 3 title "UFFDIO_MOVE", \
			"" using "percent":"relocate-pages" ls 4 title "relocated", \
			"" using "percent":"relocate-tables" ls 5 title "relocated, aligned"
	}
}

if (have("heap.tsv")) {
	set output "heap.svg"
	set title "A heap of blocks that were moved together: slab memory for its VMAs"
	set xlabel "blocks"
	set ylabel "kB"
	set logscale xy
	kb(i) = column("kB-vma") + column("kB-anon_vma") + column("kB-avc")
	plot "< grep -v relocate heap.tsv" using "blocks":(kb(0)) ls 2 title "mremap()", \
		"< grep -v plain heap.tsv" using "blocks":(kb(0) < 1 ? 1 : kb(0)) ls 4 title "relocated"

	set output "heap-time.svg"
	set title "A heap of blocks that were moved together: what it costs afterwards"
	set ylabel "us"
	plot "< grep -v relocate heap.tsv" using "blocks":"fork-us" ls 2 title "fork(), mremap()", \
		"< grep -v plain heap.tsv" using "blocks":"fork-us" ls 4 title "fork(), relocated", \
		"< grep -v relocate heap.tsv" using "blocks":"maps-us" ls 1 title "maps, mremap()", \
		"< grep -v plain heap.tsv" using "blocks":"maps-us" ls 5 title "maps, relocated"
}
