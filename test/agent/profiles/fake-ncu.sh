#!/bin/sh
# ncu by its command line: options, then the program that it runs. Once that has ended, it writes what a real one printed (printed.txt beside it) into its log:
# the first six launches where it is told to skip none, else those behind the skipped. "mode" beside it may make it refuse.
here=$(dirname "$0")
mode=$(cat "$here/mode")
skip=0 count=0 log="" asked=""
while :; do
  case "$1" in
    --csv) shift ;;
    --log-file) log=$2; shift 2 ;;
    --launch-skip) skip=$2; shift 2 ;;
    --launch-count) count=$2; shift 2 ;;
    --metrics | --section) asked="$asked $2"; shift 2 ;;
    --*) shift 2 ;;
    *) break ;;
  esac
done
"$@" &
wait $!
{
  case "$mode $asked" in
    denied*)
      echo "==PROF== Connected to process 17 (/usr/bin/python3.12)"
      echo "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters on the target device 0. For instructions on enabling permissions and to get more information see https://developer.nvidia.com/ERR_NVGPUCTRPERM"
      exit
      ;;
    unknown*dram__*)
      echo "==ERROR== Failed to find metric regex:^dram__cycles_active.avg.pct_of_peak_sustained_elapsed(\\.|$)"
      exit
      ;;
  esac
  head -n 5 "$here/printed.txt"
  if [ "$skip" = 0 ]; then sed -n 6,11p "$here/printed.txt"; else tail -n +$((6 + skip)) "$here/printed.txt" | head -n "$count"; fi
} > "$log"
