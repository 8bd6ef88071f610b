package edu.anu.spice;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * The parses of this process's captions, in memory, in the place of SPICE's class of this name.
 *
 * SPICE's class stores them in LMDB through a serialiser that reaches into Java's own classes, which Java 16 and later
 * forbid. Here SpiceRunner fills the map with all captions before the scorer asks, and the program that started this
 * process keeps them.
 */
public class LmdbTupleDB {

    static final Map<String, ArrayList<ArrayList<String>>> PARSES = new ConcurrentHashMap<>();

    public LmdbTupleDB(String folder) {}

    public ArrayList<ArrayList<String>> get(String caption) {
        return PARSES.get(caption);
    }

    public Map<String, ArrayList<ArrayList<String>>> getTransaction(List<String> captions) {
        Map<String, ArrayList<ArrayList<String>>> found = new HashMap<>();
        for (String caption : captions) {
            ArrayList<ArrayList<String>> tuples = PARSES.get(caption);
            if (tuples != null) {
                found.put(caption, tuples);
            }
        }
        return found;
    }

    public void putTransaction(Map<String, ArrayList<ArrayList<String>>> captionTuples) {
        PARSES.putAll(captionTuples);
    }
}
